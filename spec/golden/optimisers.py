"""Steps of optimisers, written out from their papers: params, gradients and states are lists of tensors, changed in place."""
import torch


def adamw(ps, gs, ms, vs, lr, step, scale=1.0, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    step += 1
    for p, g, m, v in zip(ps, gs, ms, vs):
        g = g * scale
        m.copy_(beta1 * m + (1 - beta1) * g)
        v.copy_(beta2 * v + (1 - beta2) * g * g)
        up = (m / (1 - beta1 ** step)) / (torch.sqrt(v / (1 - beta2 ** step)) + eps)
        p.copy_(p - lr * weight_decay * p - lr * up)


def sgd(ps, gs, bs, lr, scale=1.0, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    for i, (p, g) in enumerate(zip(ps, gs)):
        g = g * scale + weight_decay * p
        if momentum > 0:
            bs[i].copy_(momentum * bs[i] + (1 - dampening) * g)
            g = g + momentum * bs[i] if nesterov else bs[i]
        p.copy_(p - lr * g)


def lars(ps, gs, bs, lr, scale=1.0, momentum=0.9, weight_decay=0.0, eta=0.001, skip_decay=False, skip_adapt=False):
    for p, g, b in zip(ps, gs, bs):
        flat = p.dim() <= 1
        g = g * scale
        if not (flat and skip_decay):
            g = g + weight_decay * p
        if not (flat and skip_adapt):
            g = g * (eta * p.norm() / g.norm())
        b.copy_(momentum * b + g)
        p.copy_(p - lr * b)


def bert_adam(ps, gs, ms, vs, lr, scale=1.0, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, max_norm=1.0):
    for p, g, m, v in zip(ps, gs, ms, vs):
        g = g * scale
        if max_norm > 0:
            g = g * torch.clamp(max_norm / (g.norm() + 1e-6), max=1)
        m.copy_(beta1 * m + (1 - beta1) * g)
        v.copy_(beta2 * v + (1 - beta2) * g * g)
        p.copy_(p - lr * (m / (torch.sqrt(v) + eps) + weight_decay * p))
