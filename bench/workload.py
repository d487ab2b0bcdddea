# SPDX-License-Identifier: BSD-3-Clause
"""What a workload is: columns to measure, metrics of each, and goals that compare them."""

import statistics


class Metric:
    """One row of the table: a number that each measurement of a column gives, or some do."""

    def __init__(self, key, label, digits=0, better=None):
        self.key = key
        self.label = label
        self.digits = digits
        self.better = better  # "more", "less", or None: no ratio to the best other one is printed


class Goal:
    """`value` computes, from one round, what is to be at least (or at most) `bound`; the median counts."""

    def __init__(self, text, value, at_least=None, at_most=None, digits=2):
        self.text = text
        self.value = value
        self.at_least = at_least
        self.at_most = at_most
        self.digits = digits

    def judge(self, rounds):
        """(median, lowest, highest, met) over the rounds that have what it takes, or None."""
        values = []
        for of_round in rounds:
            try:
                values.append(self.value(of_round))
            except KeyError:
                continue  # a column or metric that is not there
        if not values:
            return None
        median = statistics.median(values)
        met = median >= self.at_least if self.at_least is not None else median <= self.at_most
        return median, min(values), max(values), met


def ratio(metric, column, other, times=1.0):
    """For Goal: COLUMN's METRIC as a multiple of OTHER's, in the same round."""
    return lambda r: r[column][metric] / (times * r[other][metric])


def own(metric, column="logcache"):
    return lambda r: r[column][metric]


class Workload:
    """Subclasses say what is done.

    open() starts what is measured and fills self.targets, by column; measure(column) makes one measurement and
    returns metrics by key; self.round is the number of the round. A column may be anything, also a simulation.
    `once`: these are measured in the first round alone. `references`: these are no targets that somebody could take
    instead, so none of them is "the best other".
    """

    name = ""
    title = ""
    metrics = ()
    goals = ()
    once = ()
    references = ()
    warm_up = True  # one measurement that does not count: memory is allocated, files get their blocks
    in_quick = True  # part of --quick?
    external = False  # can it do with targets that it has not started itself?

    def __init__(self, machine, options):
        self.machine = machine
        self.options = options
        self.targets = {}
        self.round = 0

    def open(self):
        raise NotImplementedError

    def measure(self, column):
        raise NotImplementedError

    def extra(self, result):
        """One more plot for the page, or nothing."""
        del result
        return ""

    def close(self):
        for target in self.targets.values():
            if target is not None:
                target.stop()
        self.targets = {}
