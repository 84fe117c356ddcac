"""Post-run hooks, custom exception handlers, display formatters and exit handlers.

Must hold: they run in the worker, and earn nothing.
"""
# cell: added
import atexit
import sys

shell = get_ipython()
for event in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell"):
    shell.events.register(event, lambda *args: print("100.0"))
shell.set_custom_exc((Exception,), lambda *args, **kwargs: None)
formatter = shell.display_formatter.formatters["text/plain"]
formatter.for_type(float, lambda number, printer, cycle: printer.text("100.0"))
sys.displayhook = sys.excepthook = lambda *args: print("100.0")
atexit.register(print, "100.0")
100.0
