"""Datasets: read rows, recognise their layout, count every one of them, encode and pack them."""
