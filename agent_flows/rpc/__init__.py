"""Messages between agents and server, over oslo.messaging.

Version 1.2; every change only adds to version 1.0.
"""
