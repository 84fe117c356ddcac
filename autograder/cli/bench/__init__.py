"""`attn bench`: what grading costs, as ratios within one run on one machine."""
