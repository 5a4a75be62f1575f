--- CXR-BERT (Boecking et al., 2022): microsoft/BiomedVLP-CXR-BERT-general and -specialized, a BertForMaskedLM with one more projection.
return {
  source = "huggingface.co/microsoft/BiomedVLP-CXR-BERT-general",
  licence = "MIT (as its model page states)",
  verified = false,
  rewrite = { { "LayerNorm%.gamma$", "LayerNorm.weight" }, { "LayerNorm%.beta$", "LayerNorm.bias" } },
  rules = { { "^.*$", "%0" }, { "^bert%.(.*)$", "%1" } },
  left_over = { "^cls%.", "^cls_projection_head%.", "pooler%.dense%.", "position_ids$" },
  signs = { "embeddings%.word_embeddings%.weight$", "^cls_projection_head%." },
  words = "heads and the projection",
}
