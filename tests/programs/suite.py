# SPDX-License-Identifier: LGPL-2.1-or-later
# suite.py MODULE...: run test modules of Python's own test suite and print what became of each test, without times.
import importlib
import sys
import unittest

import test.support


class Result(unittest.TestResult):
    def say(self, test, what):
        print(what, test.id(), flush=True)

    def addSuccess(self, test):
        self.say(test, 'ok')

    def addError(self, test, error):
        self.say(test, f'error {error[0].__name__}')

    def addFailure(self, test, error):
        self.say(test, 'failure')

    def addSkip(self, test, reason):
        self.say(test, 'skipped')

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.say(test, 'failure of a subtest')


test.support.verbose = 0
for name in sys.argv[1:]:
    unittest.TestLoader().loadTestsFromModule(importlib.import_module(f'test.{name}')).run(Result())
