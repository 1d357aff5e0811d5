"""The page "Books" in Airflow's UI: coverage, balances, spending and checks of the published books.

plugin.py    the Airflow plugin: a page in its navigation, an app under /ledgerhouse
app.py       the app: JSON, the page's files and Data Docs, for logged-in users only
figures.py   the questions asked of the books; calendar.py  coverage, day by day
static/      the page itself: hand-written modules, no build step; Chart.js lies in static/vendor/
"""
