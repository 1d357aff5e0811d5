"""What the containers of docker-compose.yaml run beside Airflow itself: `init` and `health`."""
