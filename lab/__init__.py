"""A real network in a box: switches, virtual machines and message buses of our own.

Tests, the quickstart and the bench stand on it. Nothing is simulated: Open
vSwitch, RabbitMQ and the kernel do what they do in production, each in a
namespace, directory and on ports of its own, and whoever leaves a ``with``
block (or is interrupted) takes along exactly what it brought.
"""
