"""IPython's magics and shell escapes: pages with programs, shells, other files, other users' settings, the debugger.

Must hold: they are no more than cells that run in the jail.
"""
# cell: added
%%html
<script>alert('GOT')</script>
# cell: added
%%javascript
alert('GOT')
# cell: added
!cat /etc/passwd @COURSE@/gradebook.db @HOME@/.netrc; rm -rf @COURSE@ @HOME@
# cell: added
%run @COURSE@/nbgrader_config.py
# cell: added
%%bash
cat /proc/*/environ; (sleep 1000 &) ; kill -9 -1
# cell: added
%load_ext autoreload
%store -r
%config
%debug
# cell: added
%%writefile @COURSE@/nbgrader_config.py
owned
# cell: added
%env
%cd @COURSE@
%lsmagic
