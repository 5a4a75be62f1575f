--- Hugging Face's BERT: BertModel (bare names) and the models around it (`bert.` in front, heads under `cls.`), old spellings included.
return {
  source = "transformers (BertModel, BertForMaskedLM, BertForPreTraining)",
  licence = "Apache-2.0 (Google's BERT); others by model: look at the model's page",
  verified = "files written by transformers with random weights, not on downloaded ones",
  rewrite = { { "LayerNorm%.gamma$", "LayerNorm.weight" }, { "LayerNorm%.beta$", "LayerNorm.bias" } },
  rules = { { "^.*$", "%0" }, { "^bert%.(.*)$", "%1" }, { "^.*$", "bert.%0" } },
  left_over = { "^cls%.", "pooler%.dense%.", "position_ids$" },
  signs = { "embeddings%.word_embeddings%.weight$", "encoder%.layer%.0%.attention%.self%.query%.weight$" },
  without = { "cls_projection_head%.", "text_encoder", "lm_model%.", "^model%." },
  words = "heads and the pooler",
}
