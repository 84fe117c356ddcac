"""Publishes the grader's own report, and pages with programs in them, as outputs of its cells.

Must hold: of outputs only text and PNG pictures are passed on.
"""
# cell: added
from IPython.display import HTML, SVG, Javascript, display, publish_display_data

report = {"exercise": "dot_scores", "passed": True, "points": 100.0, "verdicts": [], "findings": [], "mistakes": []}
publish_display_data(
    {
        "application/vnd.attention-coursework.report+json": report,
        "text/html": "<script>alert('GOT')</script>",
        "application/javascript": "alert('GOT')",
        "text/markdown": "<img src=x onerror=alert('GOT')>",
        "text/plain": "100.0",
    }
)
display(HTML("<script>alert('GOT')</script>"), Javascript("alert('GOT')"), SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"))
publish_display_data({"image/png": "\"><script>alert('GOT')</script>"})
publish_display_data({"image/png": {"a": "b"}, "text/plain": ["x"]})
