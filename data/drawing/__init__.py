"""The drawn animals' parts: shapes and pens below, coats and breeds above them, heads, bodies, scenes and light on top.

from drawing.breeds import BREEDS
"""
