"""CPython's tests of multiprocessing with the start method "spawn", whose module not every installation has."""
import unittest

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "spawn")

if __name__ == "__main__":
    unittest.main()
