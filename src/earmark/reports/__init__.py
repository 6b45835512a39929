"""Tables, figures and the report: what a reader sees. The only room that draws, and it loads matplotlib only then."""

from earmark.reports import figures
from earmark.reports.board import write_board
from earmark.reports.court import CaseFile, CourtRuling, render_ruling, shown_trials, write_ruling
from earmark.reports.html import Picture, Report, render, write_report
from earmark.reports.reading import record
from earmark.reports.release import bill_of_materials, card_section
from earmark.reports.reproduction import Reproduction
from earmark.reports.rulings import Ruling, ruling_table
from earmark.reports.standings import Board, boards_of, tidy
from earmark.reports.summary import Summary, summarise
from earmark.reports.tables import Table, fidelity_table, number, percent, spread, table

__all__ = [
    "Board",
    "CaseFile",
    "CourtRuling",
    "Picture",
    "Report",
    "Reproduction",
    "Ruling",
    "Summary",
    "Table",
    "bill_of_materials",
    "boards_of",
    "card_section",
    "fidelity_table",
    "figures",
    "number",
    "percent",
    "record",
    "render",
    "render_ruling",
    "ruling_table",
    "shown_trials",
    "spread",
    "summarise",
    "table",
    "tidy",
    "write_board",
    "write_report",
    "write_ruling",
]
