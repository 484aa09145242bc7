# What every Kvasir target shares: language level, warnings, sanitizers, compiler cache.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(KVASIR_CCACHE ccache)
if(KVASIR_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KVASIR_CCACHE})
endif()

add_library(kvasir_options INTERFACE)
target_include_directories(kvasir_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(kvasir_options INTERFACE -Wall -Wextra -Werror -Wno-unused-parameter
                                                -fno-omit-frame-pointer)
if(KVASIR_SANITIZE)
  target_compile_options(kvasir_options INTERFACE -fsanitize=${KVASIR_SANITIZE}
                                                  -fno-sanitize-recover=all)
  target_link_options(kvasir_options INTERFACE -fsanitize=${KVASIR_SANITIZE})
endif()
find_package(Threads REQUIRED)
target_link_libraries(kvasir_options INTERFACE Threads::Threads)

# kvasir_library(NAME [LINK ...]): a static library of every .cc in the current folder.
function(kvasir_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC kvasir_options ${ARG_LINK})
endfunction()
