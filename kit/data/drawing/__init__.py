"""The drawn animals' parts: shapes and pens below, coats and breeds above them, heads, bodies, scenes and light on top.

from kit.data.drawing.breeds import BREEDS
"""
