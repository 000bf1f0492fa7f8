"""What the tests share: the kernel under test, a client that checks every message."""
