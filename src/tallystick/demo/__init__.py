"""The demo: a fictional company, five days, about 600 events, and one account take-over in them.

`story` tells the take-over, `ordinary` the life around it, `tell` sends both to a running server. Everything comes from a
fixed seed and lies relative to a given "now", so that screenshots and tests agree.
"""
