#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
echo 'the unit tests need Criterion: apt-get install libcriterion-dev, then run configure again'
exit 77
