"""Security groups: rules compiled to OpenFlow, installed in bundles and read back."""
