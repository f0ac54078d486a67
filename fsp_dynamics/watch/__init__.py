"""`fsp watch`: curves of runs that are being trained or are finished, in the terminal or as a page
in a browser. What is shown is read by experiments/watching.py.
"""
