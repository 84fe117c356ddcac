"""Grading a class: rebuild, zygote, jail, wire, proxies, judge, pool, gradebook.

This package imports nothing by itself: the worker's half of it runs where no oracle may be.
"""
