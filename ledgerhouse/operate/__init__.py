"""Running it: Airflow, commands, the page in its UI, alerts and the run log."""
