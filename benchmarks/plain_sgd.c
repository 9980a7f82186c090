/* Float32 SGD at batch 1 in plain C: what training on the simulated chip is measured against.
 *
 * Dense layers with tanh between them, softmax and cross-entropy at the end. One example at a time: forward,
 * backward (not into the input), then w -= rate * outer(x, d) for every layer. A layer's weights are
 * [rows + 1, cols], row-major, the last row the bias. All loops over columns are contiguous, for the compiler
 * to turn into vector instructions. No library but that of C.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MOST_LAYERS 8
#define MOST_WIDTH 4096

/* y = x W + b. Rows whose input is 0 are passed over if `skip` is set. */
static void forward(const float *restrict w, int rows, int cols, const float *restrict x, float *restrict y, int skip) {
    memcpy(y, w + (size_t)rows * cols, cols * sizeof(float));
    for (int i = 0; i < rows; i++) {
        const float *restrict row = w + (size_t)i * cols;
        const float scale = x[i];
        if (skip && scale == 0.0f) continue;
        for (int j = 0; j < cols; j++) y[j] += scale * row[j];
    }
}

/* before = (W d) * (1 - y^2), where y is the output of the tanh below this layer. */
static void backward(const float *restrict w, int rows, int cols, const float *restrict d, const float *restrict y,
                     float *restrict before) {
    for (int i = 0; i < rows; i++) {
        const float *restrict row = w + (size_t)i * cols;
        float sum = 0.0f;
        for (int j = 0; j < cols; j++) sum += row[j] * d[j];
        before[i] = sum * (1.0f - y[i] * y[i]);
    }
}

/* w -= rate * outer((x, 1), d) */
static void update(float *restrict w, int rows, int cols, const float *restrict x, const float *restrict d, float rate,
                   int skip) {
    for (int i = 0; i <= rows; i++) {
        float *restrict row = w + (size_t)i * cols;
        const float scale = i < rows ? rate * x[i] : rate;
        if (skip && scale == 0.0f) continue;
        for (int j = 0; j < cols; j++) row[j] -= scale * d[j];
    }
}

/* z becomes softmax(z) - onehot(label); returns the cross-entropy. */
static float loss_and_gradient(float *z, int count, int64_t label, int64_t *right) {
    int best = 0;
    for (int j = 1; j < count; j++) best = z[j] > z[best] ? j : best;
    *right += best == label;
    const float largest = z[best], wanted = z[label] - largest;
    float sum = 0.0f;
    for (int j = 0; j < count; j++) sum += z[j] = expf(z[j] - largest);
    for (int j = 0; j < count; j++) z[j] /= sum;
    z[label] -= 1.0f;
    return logf(sum) - wanted;
}

static void squash(float *y, int count) {
    for (int j = 0; j < count; j++) y[j] = tanhf(y[j]);
}

/* Train on examples order[0..count) of x [.., widths[0]] and labels; rate 0 only evaluates. weights[l] is
 * [widths[l] + 1, widths[l + 1]]. Returns the sum of losses, and in *right how many were classified rightly
 * before their own update. */
double sgd(const float *x, const int64_t *labels, const int64_t *order, int64_t count, float *const *weights,
           const int32_t *widths, int32_t layers, float rate, int32_t skip, int64_t *right) {
    static float y[MOST_LAYERS][MOST_WIDTH], d[MOST_LAYERS][MOST_WIDTH];
    const int top = layers - 1;
    double loss = 0.0;
    *right = 0;
    for (int64_t n = 0; n < count; n++) {
        const float *first = x + order[n] * widths[0];
        for (int l = 0; l < layers; l++) {
            forward(weights[l], widths[l], widths[l + 1], l ? y[l - 1] : first, y[l], skip && !l);
            if (l < top) squash(y[l], widths[l + 1]);
        }
        loss += loss_and_gradient(y[top], widths[layers], labels[order[n]], right);
        if (rate == 0.0f) continue;
        memcpy(d[top], y[top], widths[layers] * sizeof(float));
        for (int l = top; l > 0; l--) backward(weights[l], widths[l], widths[l + 1], d[l], y[l - 1], d[l - 1]);
        for (int l = 0; l < layers; l++) {
            update(weights[l], widths[l], widths[l + 1], l ? y[l - 1] : first, d[l], rate, skip && !l);
        }
    }
    return loss;
}
