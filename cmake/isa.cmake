# Every file in engine/cpu/isa is compiled once per instruction set, into a namespace of its own; the program picks one
# at run time from CPUID (engine/cpu/dispatch.h). These files use no standard-library templates: an inline function
# compiled for AVX-512 must never be the copy that the linker keeps for the rest of the program.
file(GLOB FASTNTK_ISA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/engine/cpu/isa/*.cpp)
set(FASTNTK_ISA_OBJECTS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(isas baseline avx2 avx512 avx512bf16)
else()
  set(isas baseline)
endif()
# What only some processors with AVX-512 have is a set of its own.
set(isa_flags_avx512bf16 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mavx2 -mfma -mprefer-vector-width=512)
set(isa_flags_baseline "")
set(isa_flags_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(isa_flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mbmi2 -mprefer-vector-width=512)
foreach(isa ${isas})
  set(sources ${FASTNTK_ISA_SOURCES})
  if(isa STREQUAL avx512bf16)
    set(sources ${PROJECT_SOURCE_DIR}/engine/cpu/isa/bf16/gemm.cpp)
  endif()
  if(sources)
    add_library(fastntk_isa_${isa} OBJECT ${sources})
    target_include_directories(fastntk_isa_${isa} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(fastntk_isa_${isa} PRIVATE FASTNTK_ISA=${isa})
    # Floating-point contraction is on here: products and sums become FMA, the same ones in every build.
    target_compile_options(fastntk_isa_${isa} PRIVATE ${isa_flags_${isa}} -Wall -Wextra -Wno-psabi -ffp-contract=fast
                           $<$<BOOL:${FASTNTK_WERROR}>:-Werror>)
    if(FASTNTK_SANITIZE)
      target_compile_options(fastntk_isa_${isa} PRIVATE -fsanitize=${FASTNTK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    endif()
    list(APPEND FASTNTK_ISA_OBJECTS $<TARGET_OBJECTS:fastntk_isa_${isa}>)
  endif()
endforeach()
