# kad_add_library(NAME SHARED|STATIC): the core as one target, with the same flags for each kind.

set(kad_source_dir "${CMAKE_CURRENT_SOURCE_DIR}/kad_sdk/csrc")
set(kad_sources
    base/abi.cpp base/level.cpp base/zero_memory.cpp coreset/flush.cpp coreset/kcenter.cpp
    coreset/sketch.cpp density/density.cpp graph/graph_check.cpp
    image/image.cpp image/preprocess.cpp image/resize.cpp image/tiles.cpp search/dense_search.cpp
    search/features.cpp search/index.cpp search/score.cpp search/search.cpp
    search/search_scalar.cpp search/split.cpp search/statistics.cpp search/stored_index.cpp
    search/sieve/basis.cpp
    search/sieve/candidates.cpp search/sieve/code_scalar.cpp search/sieve/narrow_pass.cpp
    search/sieve/principal.cpp search/sieve/projection.cpp search/sieve/query_block.cpp
    search/sieve/query_coordinates.cpp search/sieve/query_grid.cpp search/sieve/seeds.cpp
    search/sieve/sieve.cpp search/sieve/sieve_search.cpp search/sieve/sieve_stored.cpp board/board.cpp board/board_map.cpp
    board/board_scalar.cpp board/judge.cpp board/map_resize.cpp board/peak.cpp board/regions.cpp
    board/tile_map.cpp windows/plan.cpp windows/window_map.cpp windows/window_regions.cpp
    windows/window_score.cpp)

# One instruction set per file: only these files hold code beyond the baseline, and level.cpp
# decides at run time whether it is called.
set(kad_avx2_sources board/board_avx2.cpp search/search_avx2.cpp search/sieve/code_avx2.cpp)
set(kad_avx512_sources board/board_avx512.cpp search/search_avx512.cpp search/sieve/code_avx512.cpp)
set(kad_avx512vnni_sources search/sieve/code_avx512vnni.cpp)
set(kad_sha_sources runtime/sha256_x86.cpp)
set(kad_avx2_options -mavx2 -mfma -mf16c -mbmi -mpopcnt)
set(kad_avx512_options -mavx512f -mavx512bw -mavx512dq -mavx512vl ${kad_avx2_options})
set(kad_avx512vnni_options -mavx512vnni ${kad_avx512_options})
set(kad_sha_options -msha -msse4.1)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(kad_x86_levels 1)
  list(APPEND kad_sources ${kad_avx2_sources} ${kad_avx512_sources} ${kad_avx512vnni_sources})
else()
  set(kad_x86_levels 0)
endif()

list(TRANSFORM kad_sources PREPEND "${kad_source_dir}/")
include(cmake/KadReader.cmake)
if(KAD_WITH_RUNTIME)
  include(cmake/KadRuntime.cmake)
endif()

# No contraction of a * b + c: the order of arithmetic is defined, and equal at every level.
set(kad_compile_options
    -ffp-contract=off -fno-math-errno -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
# GCC 12's own intrinsics headers trip these two (gcc.gnu.org/PR105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND kad_avx2_options -Wno-uninitialized -Wno-maybe-uninitialized)
  list(APPEND kad_avx512_options -Wno-uninitialized -Wno-maybe-uninitialized)
  list(APPEND kad_avx512vnni_options -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

list(TRANSFORM kad_avx2_sources PREPEND "${kad_source_dir}/")
list(TRANSFORM kad_avx512_sources PREPEND "${kad_source_dir}/")
list(TRANSFORM kad_avx512vnni_sources PREPEND "${kad_source_dir}/")
list(TRANSFORM kad_sha_sources PREPEND "${kad_source_dir}/")

# The sources of a target that hold one instruction set each.
function(kad_set_instructions name)
  set_source_files_properties(${kad_avx2_sources} TARGET_DIRECTORY ${name} PROPERTIES
    COMPILE_OPTIONS "${kad_avx2_options}")
  set_source_files_properties(${kad_avx512_sources} TARGET_DIRECTORY ${name} PROPERTIES
    COMPILE_OPTIONS "${kad_avx512_options}")
  set_source_files_properties(${kad_avx512vnni_sources} TARGET_DIRECTORY ${name} PROPERTIES
    COMPILE_OPTIONS "${kad_avx512vnni_options}")
  set_source_files_properties(${kad_sha_sources} TARGET_DIRECTORY ${name} PROPERTIES
    COMPILE_OPTIONS "${kad_sha_options}")
endfunction()

# Sources that CMAKE_UNITY_BUILD compiles as one, in groups. Other folders use a name for several
# things, each in its file alone.
function(kad_set_unity_groups name)
  set_target_properties(${name} PROPERTIES UNITY_BUILD_MODE GROUP)
  get_target_property(sources ${name} SOURCES)
  foreach(source ${sources})
    if(source MATCHES "/(base|density|graph|image)/")
      set(group stages)
    elseif(source IN_LIST kad_reader_sources)
      set(group reader)
    elseif(source MATCHES "/runtime/")
      set(group runtime)
    else()
      continue()
    endif()
    set_property(SOURCE "${source}" TARGET_DIRECTORY ${name} PROPERTY UNITY_GROUP ${group})
  endforeach()
endfunction()

function(kad_sanitize name)
  if(KAD_SANITIZE)
    target_compile_options(${name} PUBLIC -fsanitize=${KAD_SANITIZE} -fno-omit-frame-pointer -g1)
    target_link_options(${name} PUBLIC -fsanitize=${KAD_SANITIZE})
  endif()
endfunction()

function(kad_add_library name kind)
  add_library(${name} ${kind} ${kad_sources})
  add_library(kad::${name} ALIAS ${name})
  kad_set_instructions(${name})
  kad_set_unity_groups(${name})
  target_compile_features(${name} PRIVATE cxx_std_17)
  set_target_properties(${name} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(${name} PRIVATE
    KAD_VERSION_STRING="${PROJECT_VERSION}" KAD_X86_LEVELS=${kad_x86_levels})
  # -O3 comes after CMake's own level, also in RelWithDebInfo, where that is -O2.
  target_compile_options(${name} PRIVATE
    ${kad_compile_options}
    $<$<CONFIG:Release,RelWithDebInfo>:-O3>
    $<$<BOOL:${KAD_WERROR}>:-Werror>)
  target_include_directories(${name}
    PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/kad_sdk/include>"
    PRIVATE "${kad_source_dir}")
  target_link_libraries(${name} PRIVATE Threads::Threads)
  if(KAD_WITH_RUNTIME)
    kad_add_runtime(${name})
  endif()
  kad_sanitize(${name})
endfunction()
