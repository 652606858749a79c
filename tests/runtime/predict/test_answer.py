"""An answer holds its quantities once; attributes, one image and joined batches are views of them."""

import numpy as np

from probrt.runtime import Answer, Prediction
from probrt.runtime.predict.answer import join_predictions, make_answer


def make_test_answer(count: int) -> Answer:
    values = np.arange(2.0 * count).reshape(count, 2)
    return make_answer({"mean": values, "aleatoric": values + 1, "quantiles": np.stack([values, values], -1)})


def test_a_quantity_that_is_absent_is_none_as_an_attribute() -> None:
    answer = make_test_answer(3)
    assert answer.total is None
    assert answer.epistemic is None
    assert answer.aleatoric is answer.quantities["aleatoric"]
    assert answer.extra.keys() == {"quantiles"}
    assert {values.dtype for values in answer.quantities.values()} == {np.dtype(np.float32)}


def test_one_image_has_no_batch_axis() -> None:
    image = make_test_answer(3).image(1)
    assert image.mean.tolist() == [2.0, 3.0]
    assert image.quantities["quantiles"].shape == (2, 2)


def test_joined_predictions_keep_the_order_of_images() -> None:
    parts = [Prediction({"h": make_test_answer(count)}, np.full(count, count, np.int32)) for count in (2, 3)]
    joined = join_predictions(parts)
    assert joined.draws.tolist() == [2, 2, 3, 3, 3]
    np.testing.assert_array_equal(joined["h"].mean[2:], parts[1]["h"].mean)
    assert list(joined["h"].quantities) == ["mean", "aleatoric", "quantiles"]


def test_faults_name_the_first_value_that_is_not_finite() -> None:
    answer = make_answer({"mean": np.array([[1.0], [np.inf], [1e39]])})
    faults = Prediction({"h": answer}, np.zeros(3, np.int32)).faults
    assert faults == ["", *["the model's h.mean is not finite for this image"] * 2]
