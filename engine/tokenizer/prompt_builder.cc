#include "engine/tokenizer/prompt_builder.h"

#include <utility>

namespace kvasir {

PromptBuilder& PromptBuilder::Text(std::string_view text) {
  if (!text.empty()) parts_.push_back({-1, std::string(text)});
  return *this;
}

PromptBuilder& PromptBuilder::Id(int32_t id) {
  parts_.push_back({id, {}});
  return *this;
}

PromptBuilder& PromptBuilder::Control(std::string_view marker) {
  const int32_t id = tokenizer_.SpecialId(marker);
  return id >= 0 ? Id(id) : Text(marker);
}

PromptBuilder& PromptBuilder::Bos() { return tokenizer_.bos() >= 0 ? Id(tokenizer_.bos()) : *this; }

PromptBuilder& PromptBuilder::Eos() {
  return tokenizer_.eos() >= 0 ? Id(tokenizer_.eos()) : Text("</s>");
}

void PromptBuilder::SuggestBorder() {
  if (border_ != Border::kNone) return;
  border_ = Border::kSuggested;
  border_at_ = parts_.size();
}

void PromptBuilder::SetBorder() {
  border_ = Border::kSet;
  border_at_ = parts_.size();
}

// A run that begins with a space needs no other one in front.
Status PromptBuilder::Flush(bool continues, std::string* run, std::vector<int32_t>* ids) const {
  if (run->empty()) return Status::Ok();
  const bool plain = continues || run->starts_with(' ');
  KVASIR_ASSIGN_OR_RETURN(const std::vector<int32_t> more,
                          plain ? tokenizer_.EncodeContinuation(*run) : tokenizer_.Encode(*run));
  ids->insert(ids->end(), more.begin(), more.end());
  run->clear();
  return Status::Ok();
}

Result<ChatPrompt> PromptBuilder::Build() const {
  std::vector<int32_t> ids;
  std::string run;
  size_t anchor = 0;
  bool continues = false;  // the run goes on from text before the border
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (i == border_at_) {
      if (border_ == Border::kSet) {
        KVASIR_RETURN_IF_ERROR(Flush(continues, &run, &ids));
        continues = true;
      }
      anchor = ids.size();
    }
    if (parts_[i].id < 0) {
      run += parts_[i].text;
      continue;
    }
    KVASIR_RETURN_IF_ERROR(Flush(continues, &run, &ids));
    continues = false;
    ids.push_back(parts_[i].id);
  }
  KVASIR_RETURN_IF_ERROR(Flush(continues, &run, &ids));
  const auto border = ids.begin() + static_cast<ptrdiff_t>(anchor);
  return ChatPrompt{{ids.begin(), border}, {border, ids.end()}};
}

}  // namespace kvasir
