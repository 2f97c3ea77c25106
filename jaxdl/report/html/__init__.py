"""The report as one HTML file that opens without a network, and parts of it for notebooks.

Read `run.py` first: it gathers what the templates show. `charts.py` and `examples.py` have what is
drawn, `page.py` the templates' environment. A name that a user chose is escaped by the template
wherever it stands, and a page allows no script but its own.
"""

from jaxdl.report.html.run import Picture, document, render, summary

__all__ = ("Picture", "document", "render", "summary")
