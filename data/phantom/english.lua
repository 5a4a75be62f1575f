--- The English half of the phantom's grammar: what unic.datasets.phantom.report writes with. Spanish has the same keys.
--
-- A template is text with {slots} and [choices|of|text]. Earlier entries of a list are taken more often, as words are in real reports. A
-- leading `*` keeps an entry for held-out studies: training never sees that phrasing. A leading `~` marks a noun phrase that takes no
-- article. Slots of a finding: {sev} {adverb} {side} {loc} {place} {object} {bend}; of a frame: {np}, {a} (with its article), and for pairs
-- {np2}, {a2}. `a(n)` becomes the right article, and the first letter of a sentence a capital.
-- Of a finding: `np` its noun phrases, `np_both` those for both sides, `plain` those that name no place, `sentences` whole ones, `rich`
-- those of the rich prompts, `nouns` what denials and bare prompts name, `sev` its severities.
-- @module unic.datasets.phantom.english

return {
  side = {left = "left", right = "right", bilateral = "bilateral"},
  article = true, -- "a" or "an" before a countable noun phrase
  join = {", ", " or "},

  -- Where a lesion lies, by zone.
  loc = {
    upper = {
      "in the {side} upper zone", "in the {side} upper lobe", "in the upper third of the {side} lung", "at the {side} apex",
      "in the {side} upper lung field", "*in the upper zone of the {side} lung",
    },
    middle = {
      "in the {side} mid zone", "in the middle third of the {side} lung", "in the {side} perihilar region", "in the {side} mid lung field",
      "near the {side} hilum", "*in the mid zone of the {side} lung",
    },
    lower = {
      "in the {side} lower zone", "in the {side} lower lobe", "at the {side} base", "in the lower third of the {side} lung",
      "at the {side} lung base", "in the {side} lower lung field", "*in the lower zone of the {side} lung",
    },
  },
  loc_both = {
    upper = {"in both upper zones", "in the upper third of both lungs"},
    middle = {"in both mid zones", "in the middle third of both lungs"},
    lower = {"at both bases", "in both lower zones", "in the lower third of both lungs"},
  },
  place = {
    hemithorax = {"over the {side} hemithorax", "over the {side} lung", "projected over the {side} chest"},
    neck = {"in the upper oesophagus", "in the neck", "at the thoracic inlet"},
    abdomen = {"in the upper abdomen", "in the stomach", "below the diaphragm"},
  },
  bend = {left = "levoconvex", right = "dextroconvex"},

  -- Frames around one noun phrase, and around two.
  frames = {
    "There is {a}.", "{a} is seen.", "{np}.", "{a} is present.", "Evidence of {np}.", "Findings consistent with {np}.", "{a} is noted.",
    "The film shows {a}.", "Findings in keeping with {np}.", "{a} is identified.", "Note is made of {a}.", "The radiograph demonstrates {a}.",
    "*{a} is seen in this study.", "*The findings are consistent with {np}.",
  },
  hedges = {
    "Possible {np}.", "Findings suggest {np}.", "Probable {np}.", "Appearances suspicious for {np}.", "This may represent {a}.",
    "{np} cannot be excluded.", "Likely {np}.", "*The findings may represent {a}.",
  },
  pairs = {
    "{np} and {np2}.", "There is {a} and {a2}.", "{np} with {np2}.", "There is {a}, together with {a2}.", "{a} is seen, as well as {a2}.",
    "*The film shows {a} and {a2}.",
  },

  -- Absence: frames around a list of nouns.
  negations = {
    "No {np}.", "There is no {np}.", "No evidence of {np}.", "No {np} is seen.", "Negative for {np}.", "No sign of {np}.", "Without {np}.",
    "No definite {np}.", "There are no signs of {np}.", "*No {np} is identified.", "*The film shows no {np}.",
  },

  findings = {
    cardiomegaly = {
      sev = {{"mild", "slight", "borderline"}, {"moderate"}, {"marked", "severe", "gross"}},
      np = {
        "~[{sev} |]cardiomegaly", "~{sev} enlargement of the heart", "~{sev} cardiac enlargement", "[{adverb} |]enlarged heart",
        "[{adverb} |]enlarged cardiac silhouette", "~{sev} enlargement of the cardiac silhouette",
      },
      sentences = {
        "The heart is {adverb} enlarged.", "The heart is enlarged.", "The cardiothoracic ratio is {adverb} increased.",
        "The cardiac silhouette is {adverb} enlarged.", "*The cardiothoracic ratio is increased.",
      },
      rich = {"~{sev} cardiomegaly", "~{sev} cardiac enlargement"},
      nouns = {"cardiomegaly", "cardiac enlargement", "enlargement of the heart"},
    },
    effusion = {
      sev = {{"small", "minimal", "trace"}, {"moderate", "moderate-sized"}, {"large", "massive", "extensive"}},
      np = {
        "[{sev} |]{side} pleural effusion", "[{sev} |]{side} effusion", "[{sev} |]{side}-sided pleural effusion", "~{side} pleural fluid",
        "[{sev} |]pleural effusion on the {side}", "*{sev} {side}-sided effusion",
      },
      np_both = {"~[{sev} |]bilateral pleural effusion", "~[{sev} |]bilateral effusion", "~{sev} pleural effusion on both sides"},
      sentences = {
        "Blunted {side} costophrenic angle: {sev} effusion.", "Blunting of the {side} costophrenic angle by pleural fluid.",
        "Pleural fluid obscures the {side} base.",
      },
      plain = {"[{sev} |]pleural effusion"},
      rich = {"{sev} {side} pleural effusion", "{sev} {side} effusion"},
      nouns = {"pleural effusion", "effusion", "pleural fluid"},
    },
    pneumothorax = {
      sev = {{"small", "apical", "tiny"}, {"moderate", "moderate-sized"}, {"large", "extensive", "massive"}},
      np = {
        "[{sev} |]{side} pneumothorax", "[{sev} |]{side}-sided pneumothorax", "[{sev} |]pneumothorax on the {side}",
        "~{sev} collapse of the {side} lung by pneumothorax", "*pneumothorax of {sev} size on the {side}",
      },
      sentences = {
        "A pleural line is visible on the {side}, in keeping with {sev} pneumothorax.", "The {side} lung is partly collapsed by a pneumothorax.",
        "Free pleural air on the {side}: {sev} pneumothorax.",
      },
      plain = {"[{sev} |]pneumothorax"},
      rich = {"{sev} {side} pneumothorax", "{sev} {side}-sided pneumothorax"},
      nouns = {"pneumothorax"},
    },
    consolidation = {
      sev = {{"faint", "subtle", "patchy"}, {"moderate", "patchy"}, {"dense", "extensive"}},
      np = {
        "~[{sev} |]consolidation {loc}", "~[{sev} |]airspace consolidation {loc}", "[{sev} |]infiltrate {loc}", "~[{sev} |]airspace disease {loc}",
        "~pneumonia {loc}", "[{sev} |]pneumonic focus {loc}", "*~{sev} alveolar consolidation {loc}",
      },
      sentences = {
        "The lung {loc} is consolidated.", "Air bronchograms within {sev} consolidation {loc}.", "Pneumonic change {loc}.",
      },
      plain = {"~[{sev} |]consolidation"},
      rich = {"~{sev} consolidation {loc}"},
      nouns = {"consolidation", "airspace consolidation", "airspace disease"},
    },
    oedema = {
      sev = {{"mild", "slight", "early"}, {"moderate"}, {"severe", "marked", "florid"}},
      np = {
        "~[{sev} |]pulmonary oedema", "~[{sev} |]pulmonary edema", "~[{sev} |]interstitial oedema", "~[{sev} |]pulmonary congestion",
        "~[{sev} |]vascular congestion", "~[{sev} |]pulmonary venous congestion", "*~{sev} alveolar oedema",
      },
      sentences = {
        "{sev} perihilar haze of both lungs from congestion.", "Upper lobe diversion and {sev} oedema.",
        "The vessels are indistinct, with {sev} oedema of both lungs.", "Bat wing shadowing of pulmonary oedema.",
      },
      rich = {"~{sev} pulmonary oedema", "~{sev} pulmonary congestion"},
      nouns = {"pulmonary oedema", "pulmonary edema", "pulmonary congestion"},
    },
    nodule = {
      np = {
        "[small |solitary |]nodule {loc}", "[small |rounded |]pulmonary nodule {loc}", "nodular opacity {loc}", "lung nodule {loc}",
        "[well-defined |]nodule {loc}", "*solitary pulmonary nodule {loc}",
      },
      sentences = {"A nodule measuring less than three centimetres lies {loc}.", "A nodule projects {loc}."},
      plain = {"[pulmonary |lung |]nodule"},
      rich = {"nodule {loc}", "pulmonary nodule {loc}"},
      nouns = {"nodule", "pulmonary nodule", "lung nodule"},
    },
    mass = {
      np = {
        "[large |]mass {loc}", "[large |lobulated |]lung mass {loc}", "[lobulated |bulky |]pulmonary mass {loc}", "mass lesion {loc}",
        "[bulky |]tumour {loc}", "*bulky mass {loc}",
      },
      sentences = {"A mass larger than three centimetres lies {loc}.", "A mass occupies the lung {loc}."},
      plain = {"[lung |large |]mass"},
      rich = {"mass {loc}", "lung mass {loc}"},
      nouns = {"mass", "lung mass", "mass lesion"},
    },
    hyperinflation = {
      sev = {{"mild", "slight"}, {"moderate"}, {"marked", "severe"}},
      np = {
        "~[{sev} |]hyperinflation", "~[{sev} |]hyperinflation of both lungs", "~{sev} air trapping", "~{sev} emphysema", "~{sev} overinflation",
        "~flattening of the domes by {sev} hyperinflation",
      },
      sentences = {
        "The lungs are {adverb} hyperinflated.", "The lungs are hyperinflated.", "Hyperinflated lungs with flattened diaphragms.",
        "Low, flat diaphragms in keeping with {sev} emphysema.", "*The lungs are hyperinflated with low, flat diaphragms.",
      },
      rich = {"~{sev} hyperinflation of both lungs", "~{sev} hyperinflation"},
      nouns = {"hyperinflation", "air trapping", "emphysema"},
    },
    pacemaker = {
      np = {
        "{side} pacemaker", "{side}-sided pacemaker", "pacemaker on the {side}", "{side} chest wall pacemaker", "{side} pectoral pacemaker",
        "{side}-sided cardiac device with its lead", "*{side}-sided cardiac pacemaker",
      },
      sentences = {
        "A pacemaker generator lies in the {side} chest wall.", "Pacemaker from the {side}, its lead in the right ventricle.",
        "The lead of a {side}-sided pacemaker projects over the heart.",
      },
      plain = {"[cardiac |]pacemaker"},
      rich = {"{side} pacemaker", "{side} chest wall pacemaker", "{side}-sided pacemaker"},
      nouns = {"pacemaker", "cardiac pacemaker", "cardiac device"},
    },
    foreign_body = {
      np = {
        "[metallic |radiopaque |]foreign body {place}", "{object} {place}", "metallic object {place}", "radiopaque object {place}",
        "foreign body ({object}) {place}", "*radiopaque foreign object {place}",
      },
      sentences = {"The outline of a(n) {object} projects {place}.", "A foreign body of metallic density lies {place}."},
      plain = {"[metallic |]foreign body"},
      rich = {"metallic foreign body {place}", "{object} {place}"},
      nouns = {"foreign body", "metallic foreign body", "radiopaque object"},
      object = {
        coin = {"coin", "disc-shaped object", "swallowed coin"}, ring = {"ring", "ring-shaped object", "metallic ring"},
        pin = {"pin", "needle", "linear metallic object"}, pellets = {"group of pellets", "cluster of metallic pellets", "row of beads"},
      },
    },
    scoliosis = {
      sev = {{"mild", "slight"}, {"moderate"}, {"severe", "marked"}},
      np = {
        "~[{sev} |]scoliosis", "~[{sev} |]thoracic scoliosis", "~[{sev} |]{bend} scoliosis", "[{sev} |]{bend} curve of the spine",
        "~{sev} curvature of the thoracic spine", "*~{sev} {bend} curvature of the spine",
      },
      sentences = {"The thoracic spine is {adverb} curved.", "Scoliosis, {bend}.", "The spine shows {sev} scoliosis."},
      rich = {"~{sev} {bend} scoliosis", "~{sev} thoracic scoliosis"},
      nouns = {"scoliosis", "thoracic scoliosis", "curvature of the spine"},
    },
    hemidiaphragm = {
      sev = {{"mild", "slight"}, {"moderate"}, {"marked", "gross"}},
      np = {
        "~[{sev} |]elevation of the {side} hemidiaphragm", "[{adverb} |]raised {side} hemidiaphragm", "[{adverb} |]elevated {side} hemidiaphragm",
        "~{sev} elevation of the {side} diaphragm", "high {side} hemidiaphragm", "*~{sev} eventration of the {side} hemidiaphragm",
      },
      sentences = {
        "The {side} hemidiaphragm is {adverb} elevated.", "The {side} hemidiaphragm is raised.", "The {side} dome stands {adverb} higher than usual.",
      },
      plain = {"~elevation of the hemidiaphragm"},
      rich = {"~{sev} elevation of the {side} hemidiaphragm", "{adverb} raised {side} hemidiaphragm"},
      nouns = {"elevation of the hemidiaphragm", "hemidiaphragm elevation", "raised hemidiaphragm"},
    },
  },

  adverb = {"mildly", "moderately", "markedly"},

  normal = {
    all = {
      "No acute cardiopulmonary abnormality.", "Normal chest radiograph.", "The chest is normal.", "No abnormality is seen.",
      "Unremarkable study.", "*This is a normal chest radiograph.",
    },
    heart = {
      "The heart size is normal.", "Normal heart size.", "The cardiac silhouette is normal.", "The heart is not enlarged.",
      "The cardiac silhouette is within normal limits.", "*Heart size within normal limits.",
    },
    mediastinum = {"The mediastinum is normal.", "Normal mediastinal contours.", "The mediastinal contours are unremarkable."},
    lungs = {"The lungs are clear.", "Clear lungs.", "Both lungs are clear.", "The lung fields are clear.", "*The lung fields are normal."},
    angles = {"The costophrenic angles are clear.", "Sharp costophrenic angles.", "The pleural spaces are clear."},
    diaphragm = {"The diaphragm is normal.", "Both hemidiaphragms are in normal position.", "Normal level of both domes."},
    volume = {"Normal lung volumes.", "The lungs are normally inflated.", "Good inspiration."},
    vessels = {"The pulmonary vessels are normal.", "Normal vascularity.", "No vascular redistribution."},
    bones = {"The bones are normal.", "The bony thorax is intact.", "The spine is straight.", "No bony lesion."},
  },
  neutral = {
    "Frontal chest radiograph.", "Posteroanterior view.", "Portable film.", "No previous study for comparison.", "Single view of the chest.",
    "The film is slightly rotated.", "Clinical correlation is advised.", "Follow-up is suggested.", "*Single frontal view.",
  },

  -- Phrasings of the prompts: no training sentence is built this way.
  prompt = {
    positive = {"Film with {np}.", "{np} on the film."},
    negative = {"Film without {np}.", "No {np} on the film.", "There is no evidence of {np}."},
    pair = {"Film with {np} and {np2}.", "{np} and {np2} on the film."},
  },
}
