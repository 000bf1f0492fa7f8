# Where the WebAssembly interpreter of the JavaScript engine finds the simde headers, which it would else fetch by
# itself: unpacked by `cargo xtask setup`, or installed by the system (Debian: libsimde-dev).
foreach(place "${CMAKE_CURRENT_LIST_DIR}/../target/engine/simde/usr/include" "/usr/include" "/usr/local/include")
  if(EXISTS "${place}/simde/simde-arch.h")
    set(FETCHCONTENT_SOURCE_DIR_SIMDE "${place}" CACHE PATH "")
    return()
  endif()
endforeach()
message(FATAL_ERROR "The simde headers are missing: `cargo xtask setup` fetches them, or install libsimde-dev. \
Without JavaScript cob builds without them: --no-default-features.")
