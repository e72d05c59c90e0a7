"""Port wiring and security groups on Open vSwitch as TaskFlow flows, each task reported."""

import warnings

# futurist, under oslo.messaging and TaskFlow, imports eventlet where it finds
# it, only to ask whether it is in use; here it never is.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
