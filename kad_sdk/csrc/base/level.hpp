// The instruction-set level: chosen once from processor and operating system, forced by tests.
#pragma once

namespace kad {

/// The values are those of KAD_LEVEL_*. Built for x86-64 (KAD_X86_LEVELS is 1) all of them exist;
/// elsewhere only scalar.
enum class Level { scalar = 0, avx2 = 1, avx512 = 2, avx512vnni = 3 };

/// The level in use. avx2 means AVX2, FMA, F16C, BMI and POPCNT; avx512 means F, BW, DQ and VL
/// besides; avx512vnni means VNNI besides. A stage that has nothing for a level uses the one below.
Level current_level();

}  // namespace kad
