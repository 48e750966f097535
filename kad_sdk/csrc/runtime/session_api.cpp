// The functions of sessions.
#include "image/image.hpp"
#include "runtime/session.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

kad_score_request check_request(const kad_score_request* request) {
  if (request == nullptr) return {};
  const kad_score_request given = read_struct(
      request, KAD_FIRST_SIZE(kad_score_request, progress_context), "kad_score_request");
  check_reserved(given.reserved, "kad_score_request");
  return given;
}

kad_image check_given(const kad_image* image) {
  kad_image given = read_struct(image, KAD_FIRST_SIZE(kad_image, data), "kad_image");
  given.struct_size = sizeof(given);
  check_image(&given);
  return given;
}

// Run a call's body; a cancellation that it was ended with is answered, and forgotten.
template <class F>
void answer(Session* session, F&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.status == KAD_ERROR_CANCELLED) session->forget_cancel();
    throw;
  }
}

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_session_create(const kad_detector* detector, kad_session** out_session) {
  return kad::guard([&] {
    kad::check_pointer(out_session, "out_session");
    *out_session = nullptr;
    kad::check_pointer(detector, "detector");
    *out_session = std::make_unique<kad_session>(detector->shared).release();
  });
}

void kad_session_close(kad_session* session) { delete session; }

kad_status kad_session_score_image(kad_session* session, const kad_image* image,
                                   const kad_score_request* request, kad_result** out_result) {
  return kad::guard([&] {
    kad::check_pointer(out_result, "out_result");
    *out_result = nullptr;
    kad::check_pointer(session, "session");
    const kad_image given = kad::check_given(image);
    const kad_score_request wanted = kad::check_request(request);
    kad::answer(session, [&] { *out_result = session->score(given, wanted).release(); });
  });
}

kad_status kad_session_score_tiles(kad_session* session, const kad_image* image, const int32_t* xy,
                                   int64_t n_tiles, float* out_score, float* out_patches,
                                   int64_t* out_rows) {
  return kad::guard([&] {
    kad::check_pointer(session, "session");
    const kad_image given = kad::check_given(image);
    kad::check_count(n_tiles, 2, "n_tiles");
    if (n_tiles == 0) return;
    kad::check_pointer(xy, "xy");
    kad::check_pointer(out_score, "out_score");
    kad::answer(session, [&] {
      session->score_tiles(given, xy, n_tiles, {out_score, out_patches, out_rows, nullptr});
    });
  });
}

kad_status kad_session_cancel(kad_session* session) {
  return kad::guard([&] {
    kad::check_pointer(session, "session");
    session->cancel();
  });
}

}  // extern "C"
