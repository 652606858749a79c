"""The tests of drift agree with SciPy's, and their false alarms come as often as they say."""

import numpy as np
import pytest

from probrt.runtime.monitor.hypothesis_tests import (
    chi_square_p_value,
    compare_conformal_p_values,
    compare_counts,
    compare_samples,
    correct_for_several,
    fisher_p_value,
    ks_p_value,
)

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (5, 7), (30, 50), (80, 80), (300, 1000)])
def test_the_exact_kolmogorov_smirnov_p_value_is_scipys(first: int, second: int) -> None:
    rng = np.random.default_rng(first)
    for shift in (0.0, 0.3, 0.6):
        a, b = rng.normal(size=first), rng.normal(size=second) + shift
        statistic, p_value = compare_samples(a, b)
        expected = stats.ks_2samp(a, b, method="exact")
        assert statistic == pytest.approx(expected.statistic, abs=1e-12)
        assert p_value == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-9)


def test_the_limit_for_large_samples_is_scipys() -> None:
    for statistic in (0.004, 0.008, 0.012, 0.02):
        expected = stats.kstwo.sf(statistic, 30_000)
        assert ks_p_value(statistic, 60_000, 60_000) == pytest.approx(expected, rel=0.06)
    assert ks_p_value(0.5, 60_000, 60_000) == 0.0
    assert ks_p_value(1.0, 40, 40) == pytest.approx(stats.ks_2samp(np.zeros(40), np.ones(40)).pvalue, rel=0.5)


def test_chi_square_and_fisher_are_scipys() -> None:
    for freedom in range(1, 12):
        for statistic in (0.01, 1.0, 7.3, 60.0):
            expected = stats.chi2.sf(statistic, freedom)
            assert chi_square_p_value(statistic, freedom) == pytest.approx(expected, rel=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(50):
        (a, b), (n, m) = rng.integers(0, 20, 2), rng.integers(20, 60, 2)
        expected = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        assert fisher_p_value(int(a), int(n), int(b), int(m)) == pytest.approx(expected, rel=1e-6)
    counts = np.array([30, 40, 50]), np.array([50, 30, 40])
    expected = stats.chi2_contingency(np.stack(counts), correction=False)
    assert compare_counts(*counts) == pytest.approx((expected.statistic, expected.pvalue))


def test_rare_classes_count_as_one_and_absent_ones_not_at_all() -> None:
    first, second = np.array([40, 60, 1, 2, 0]), np.array([45, 55, 3, 1, 0])
    together = np.array([40, 60, 3]), np.array([45, 55, 4])
    expected = stats.chi2_contingency(np.stack(together), correction=False)
    statistic, p_value = compare_counts(first, second)
    assert statistic == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue)
    assert compare_counts(np.array([5, 0]), np.array([9, 0])) == (0.0, 1.0)


def test_conformal_p_values_are_compared_as_ranks() -> None:
    """The statistic is that of the scores behind them, whatever the number of new images."""
    rng = np.random.default_rng(1)
    for size in (7, 200, 5000):
        calibration, new = rng.normal(size=100), rng.normal(size=size) + 0.2
        p_values = (1 + (calibration >= new[:, None]).sum(axis=1)) / 101
        assert compare_conformal_p_values(p_values, 100) == pytest.approx(compare_samples(calibration, new))


@pytest.mark.slow
def test_uniform_p_values_raise_false_alarms_at_the_level() -> None:
    """Also where the new images outnumber those of the calibration, which breaks a test against the uniform one."""
    rng = np.random.default_rng(2)
    runs, level, alarms, naive = 1000, 0.05, 0, 0
    for _ in range(runs):
        calibration, new = rng.normal(size=60), rng.normal(size=500)
        p_values = (1 + (calibration >= new[:, None]).sum(axis=1)) / 61
        alarms += compare_conformal_p_values(p_values, 60)[1] <= level
        naive += stats.kstest(p_values, "uniform").pvalue <= level
    low, high = stats.binom.interval(0.999, runs, level)
    assert low <= alarms <= high
    assert naive > 5 * high


def test_holm_is_the_textbooks() -> None:
    assert correct_for_several([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_for_several([0.9]) == [0.9]
