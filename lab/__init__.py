"""A real network in a box: switches, virtual machines and message buses of our own.

Tests, the quickstart and the bench use it. Nothing is simulated: Open
vSwitch, RabbitMQ and the kernel do what they do in production, each in a
namespace, directory and on ports of its own, and leaving a ``with`` block
(or interrupting it) removes exactly what it made.
"""
