"""The page "Ledgerhouse" in Airflow's own UI: what the published books say, at a glance.

plugin.py    what Airflow is told: a page in its navigation, an app under /ledgerhouse
app.py       the app: JSON, the page's files and Data Docs, for logged-in users only
figures.py   the questions asked of the books; calendar.py  coverage, day by day
static/      the page itself: hand-written modules, no build step; Chart.js lies in static/vendor/
"""
