"""OpenVINO, for the backend of that name in the local Triton."""
