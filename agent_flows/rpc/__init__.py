"""Messages between agents and server, over oslo.messaging.

Version 1.0; every later change only adds.
"""
