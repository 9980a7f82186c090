"""`pcmc reproduce`: a published experiment again, as a plan of runs, their statistics, tables and curves."""
