"""What the containers of docker-compose.yml run or read beside the rooms' own code."""
