"""Two replicas of a layer that is used twice: one weight draw, one KL, signs by the global example."""

import json
import subprocess
import sys

SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from probrt.trainer import layers
from probrt.trainer.variational import posteriors, priors
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler
from probrt.trainer.variational.random_weight import find_random_weights

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
EXAMPLES, SEED, STEP = 100, 3, 7

with strategy.scope():
    keras.utils.set_random_seed(1)
    images = keras.Input((4, 4, 3))
    conv = layers.Conv2D(3, 3, estimator="flipout", kernel_posterior=posteriors.Normal(0.5), name="conv")
    open_kl = layers.Conv2D(2, 1, estimator="flipout", kernel_posterior=posteriors.Laplace(0.5), name="open",
                            kernel_prior=priors.StudentT(), bias_posterior=posteriors.Normal(0.5))
    model = keras.Model(images, open_kl(conv(conv(images))))
variables = [variable.value for variable in model.trainable_variables]
x = tf.random.stateless_normal((6, 4, 4, 3), [1, 2])

def step(x, first_row, share):
    with tf.GradientTape() as tape, use_handler(TrainingHandler(SEED, STEP, first_row)) as handler:
        outputs = model(x, training=True)
        kl = tf.add_n([handler.kl(weight) for weight in find_random_weights(model)])
        loss = tf.reduce_sum(tf.square(outputs)) / 6.0 + share * kl / EXAMPLES
    drawn = tf.concat([tf.reshape(handler.value(weight), [-1]) for weight in find_random_weights(model)], 0)
    return outputs, kl, drawn, tape.gradient(loss, variables)

alone = tf.function(lambda: step(x, 0, 1.0), autograph=False)()

@tf.function(autograph=False)
def together():
    def replica():
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group * 3
        outputs, kl, drawn, gradients = step(x[first : first + 3], first, 0.5)
        return outputs, kl, drawn, context.all_reduce("sum", gradients)
    return strategy.run(replica)

outputs, kl, drawn, gradients = together()
local = strategy.experimental_local_results
print(json.dumps({
    "weights": len(find_random_weights(model)),
    "outputs": float(np.abs(np.concatenate(local(outputs)) - alone[0]).max()),
    "kl": [float(value) for value in (*local(kl), alone[1])],
    "drawn": max(float(np.abs(values - alone[2]).max()) for values in local(drawn)),
    "gradients": max(float(np.abs(own - b).max() / np.abs(b).max())
                     for a, b in zip(gradients, alone[3], strict=True) for own in local(a)),
}))
"""


def test_two_replicas_make_the_step_that_one_device_makes():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    results = json.loads(ran.stdout.splitlines()[-1])
    assert results["weights"] == 3  # the kernel that is used twice counts once
    assert results["drawn"] == 0
    assert results["kl"][0] == results["kl"][1]
    # The rest is the same sum in another order, in float32.
    assert abs(results["kl"][0] - results["kl"][2]) < 1e-5 * results["kl"][2]
    assert results["outputs"] < 1e-5
    assert results["gradients"] < 1e-5
