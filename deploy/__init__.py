"""Programs and settings that the containers need beside the code of the other folders."""
