"""Networks that translate one sequence into another: what SCAN and the Mathematics Dataset have in common."""
