--- torchvision's ResNets: resnet18 .. resnet152, as `torch.save(model.state_dict())` or safetensors; also under the key `state_dict` or, as its training
-- scripts write them, `model`, and from distributed runs (`module.`).
return {
  source = "torchvision (models.resnet)",
  licence = "BSD-3-Clause (code and, as torchvision states, weights; ImageNet has terms of its own)",
  verified = "files written by torchvision with random weights, not on downloaded ones",
  rewrite = { { "^state_dict%.", "" }, { "^model%.", "" }, { "^module%.", "" } },
  rules = { { "^.*$", "%0" } },
  left_over = { "^fc%.", "^optimizer%.", "^model_ema%." },
  signs = { "^layer1%.0%.conv1%.weight$", "^bn1%.running_mean$" },
  words = "the classifier, training state",
}
