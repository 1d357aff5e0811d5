"""Airflow: provider, hooks, operators, the steps of the DAGs and the REST client."""
