/* SPDX-License-Identifier: Apache-2.0
 * matrix.c - the table of element types. */
#include "matrix.h"

const struct mg_dtype_info mg_dtypes[MG_N_DTYPES] = {
    [MG_F32] = {"F32", "f32", 4},
    [MG_F16] = {"F16", "f16", 2},
    [MG_BF16] = {"BF16", "bf16", 2},
};
