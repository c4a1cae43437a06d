"""CPython's tests of multiprocessing with one start method, which not every installation has as modules of their own.

    multiprocessing.py METHOD      leaves results.xml, as `python3 -m test --junit-xml` does
"""
import sys
import unittest
import xml.etree.ElementTree as tree

sys.path.pop(0)
method = sys.argv.pop(1)
results = tree.Element("testsuites")


class Results(unittest.TextTestResult):
    """Notes how each test ended."""

    def note(self, test, kind=None):
        case = tree.SubElement(results, "testcase", name=test.id(), result="completed")
        if kind:
            tree.SubElement(case, kind)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test)

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "error")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failure")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")


from test import _test_multiprocessing, support  # noqa: E402

support.use_resources = []
_test_multiprocessing.install_tests_in_module_dict(globals(), method)

if __name__ == "__main__":
    ran = unittest.main(argv=sys.argv, exit=False, testRunner=unittest.TextTestRunner(resultclass=Results, verbosity=2)).result
    tree.ElementTree(results).write("results.xml")
    sys.exit(0 if ran.wasSuccessful() else 2)
