"""From a method to graphs: its delegates and its instructions become operator calls of one graph, wherever they can.

``instructions.py`` reads the instructions as operations over values, ``placement.py`` says where each of them runs and
why, and ``segments.py`` makes graphs of those that run on the device.
"""
