--- The Spanish half of the phantom's grammar; keys and marks as in unic.datasets.phantom.english.
--
-- Words that agree with their noun come in both genders: {side_m}, {side_f}; severities are listed in the noun's own gender.
-- @module unic.datasets.phantom.spanish

local MILD_F, MILD_M = {"leve", "ligera", "discreta"}, {"leve", "ligero", "discreto"}
local MODERATE_F, MODERATE_M = {"moderada"}, {"moderado"}
local SEVERE_F, SEVERE_M = {"importante", "marcada", "severa"}, {"importante", "marcado", "severo"}

return {
  side_m = {left = "izquierdo", right = "derecho", bilateral = "bilateral"},
  side_f = {left = "izquierda", right = "derecha", bilateral = "bilateral"},
  article = false,
  join = {", ", " ni "},

  loc = {
    upper = {
      "en el lóbulo superior {side_m}", "en el campo superior {side_m}", "en el tercio superior del pulmón {side_m}", "en el vértice {side_m}",
      "en el ápex {side_m}", "*en el campo superior del pulmón {side_m}",
    },
    middle = {
      "en el campo medio {side_m}", "en el tercio medio del pulmón {side_m}", "en la región perihiliar {side_f}", "junto al hilio {side_m}",
      "*en el campo medio del pulmón {side_m}",
    },
    lower = {
      "en el lóbulo inferior {side_m}", "en la base {side_f}", "en el campo inferior {side_m}", "en el tercio inferior del pulmón {side_m}",
      "en la base pulmonar {side_f}", "*en el campo inferior del pulmón {side_m}",
    },
  },
  loc_both = {
    upper = {"en ambos campos superiores", "en el tercio superior de ambos pulmones"},
    middle = {"en ambos campos medios", "en el tercio medio de ambos pulmones"},
    lower = {"en ambas bases", "en ambos campos inferiores", "en el tercio inferior de ambos pulmones"},
  },
  place = {
    hemithorax = {"sobre el hemitórax {side_m}", "sobre el pulmón {side_m}", "proyectado sobre el tórax {side_m}"},
    neck = {"en el esófago superior", "en el cuello", "en el estrecho torácico superior"},
    abdomen = {"en el abdomen superior", "en el estómago", "por debajo del diafragma"},
  },
  bend = {left = "levoconvexa", right = "dextroconvexa"},

  frames = {
    "Se observa {np}.", "{np}.", "Se aprecia {np}.", "Hay {np}.", "Presencia de {np}.", "Hallazgos compatibles con {np}.", "Se identifica {np}.",
    "La placa muestra {np}.", "Existe {np}.", "Se visualiza {np}.", "Signos de {np}.", "La radiografía demuestra {np}.",
    "*En este estudio se observa {np}.", "*Los hallazgos son compatibles con {np}.",
  },
  hedges = {
    "Posible {np}.", "Hallazgos que sugieren {np}.", "Probable {np}.", "Imagen sospechosa de {np}.", "Podría corresponder a {np}.",
    "No se puede descartar {np}.", "A valorar {np}.", "*Los hallazgos podrían corresponder a {np}.",
  },
  pairs = {
    "{np} y {np2}.", "Se observa {np} y {np2}.", "{np} con {np2}.", "Se aprecia {np}, junto con {np2}.", "Hay {np}, además de {np2}.",
    "*La placa muestra {np} y {np2}.",
  },

  negations = {
    "Sin {np}.", "No hay {np}.", "No se observa {np}.", "Sin evidencia de {np}.", "No se aprecia {np}.",
    "Sin signos de {np}.", "No existe {np}.", "*No se identifica {np}.", "*La placa no muestra {np}.",
  },

  -- For one noun only: these take no "ni".
  denials = {"Ausencia de {np}.", "Se descarta {np}."},

  findings = {
    cardiomegaly = {
      sev = {MILD_F, MODERATE_F, SEVERE_F},
      np = {
        "cardiomegalia[ {sev}|]", "cardiomegalia de grado {grade}", "aumento[ {sev_m}|] del tamaño cardíaco",
        "aumento[ {sev_m}|] de la silueta cardíaca", "corazón aumentado de tamaño", "silueta cardíaca aumentada",
      },
      sentences = {
        "El corazón está aumentado de tamaño.", "Índice cardiotorácico aumentado.", "La silueta cardíaca está aumentada de forma {sev}.",
        "*El índice cardiotorácico está aumentado.",
      },
      rich = {"cardiomegalia {sev}", "aumento {sev_m} del tamaño cardíaco"},
      nouns = {"cardiomegalia", "aumento del tamaño cardíaco", "aumento de la silueta cardíaca"},
    },
    effusion = {
      np = {
        "derrame pleural {side_m}[ {sev}|]", "derrame {side_m}[ {sev}|]", "derrame pleural {sev} en el lado {side_m}",
        "líquido pleural en el lado {side_m}", "derrame pleural en el lado {side_m}", "*derrame {sev} en el lado {side_m}",
      },
      np_both = {"derrame pleural bilateral[ {sev}|]", "derrame bilateral[ {sev}|]", "derrame pleural en ambos lados"},
      sentences = {
        "Pinzamiento del seno costofrénico {side_m} por derrame {sev}.", "Seno costofrénico {side_m} ocupado por líquido pleural.",
        "El líquido pleural borra la base {side_f}.",
      },
      sev = {{"pequeño", "mínimo", "de escasa cuantía"}, {"moderado", "de moderada cuantía"}, {"extenso", "masivo", "de gran cuantía"}},
      plain = {"derrame pleural[ {sev}|]"},
      rich = {"derrame pleural {side_m} {sev}", "derrame {side_m} {sev}"},
      nouns = {"derrame pleural", "derrame", "líquido pleural"},
    },
    pneumothorax = {
      sev = {{"pequeño", "apical", "mínimo"}, {"moderado", "de moderada cuantía"}, {"extenso", "masivo", "de gran tamaño"}},
      np = {
        "neumotórax {side_m}[ {sev}|]", "neumotórax en el lado {side_m}", "cámara de neumotórax {side_m}",
        "colapso del pulmón {side_m} por neumotórax", "*cámara de neumotórax en el lado {side_m}",
      },
      sentences = {
        "Línea pleural visible en el lado {side_m}, compatible con neumotórax {sev}.",
        "El pulmón {side_m} está parcialmente colapsado por neumotórax.", "Aire pleural libre en el lado {side_m}: neumotórax {sev}.",
      },
      plain = {"neumotórax[ {sev}|]"},
      rich = {"neumotórax {side_m} {sev}", "neumotórax {sev} en el lado {side_m}"},
      nouns = {"neumotórax"},
    },
    consolidation = {
      sev = {{"tenue", "sutil", "parcheada"}, {"moderada", "parcheada"}, {"densa", "extensa"}},
      np = {
        "consolidación[ {sev}|] {loc}", "condensación[ {sev}|] {loc}", "infiltrado {loc}", "consolidación alveolar {loc}",
        "neumonía {loc}", "foco neumónico {loc}", "*condensación alveolar {sev} {loc}",
      },
      sentences = {
        "Broncograma aéreo en una consolidación {sev} {loc}.", "Cambios neumónicos {loc}.", "Ocupación alveolar {loc}.",
      },
      plain = {"consolidación[ {sev}|]"},
      rich = {"consolidación {sev} {loc}"},
      nouns = {"consolidación", "condensación", "consolidación alveolar"},
    },
    oedema = {
      sev = {{"leve", "ligero", "incipiente"}, MODERATE_M, {"severo", "importante", "marcado"}},
      np = {
        "edema pulmonar[ {sev}|]", "edema intersticial[ {sev}|]", "congestión pulmonar[ {sev_f}|]", "congestión vascular[ {sev_f}|]",
        "congestión venosa pulmonar", "*edema alveolar {sev}",
      },
      sentences = {
        "Opacidad perihiliar de ambos pulmones por congestión {sev_f}.", "Redistribución vascular y edema {sev}.",
        "Vasos mal definidos, con edema {sev} de ambos pulmones.", "Imagen en alas de mariposa por edema pulmonar.",
      },
      rich = {"edema pulmonar {sev}", "congestión pulmonar {sev_f}"},
      nouns = {"edema pulmonar", "congestión pulmonar", "edema intersticial"},
    },
    nodule = {
      np = {
        "nódulo {loc}", "nódulo pulmonar {loc}", "pequeño nódulo {loc}", "opacidad nodular {loc}", "nódulo solitario {loc}",
        "nódulo bien definido {loc}", "*nódulo pulmonar solitario {loc}",
      },
      sentences = {"Nódulo menor de tres centímetros {loc}.", "Un nódulo se proyecta {loc}."},
      plain = {"nódulo[ pulmonar|]"},
      rich = {"nódulo {loc}", "nódulo pulmonar {loc}"},
      nouns = {"nódulo", "nódulo pulmonar", "nódulos"},
    },
    mass = {
      np = {
        "masa {loc}", "masa pulmonar {loc}", "gran masa {loc}", "masa lobulada {loc}", "tumoración {loc}", "voluminosa masa {loc}",
        "*voluminosa masa pulmonar {loc}",
      },
      sentences = {"Masa mayor de tres centímetros {loc}.", "Una masa ocupa el pulmón {loc}."},
      plain = {"masa[ pulmonar|]"},
      rich = {"masa {loc}", "masa pulmonar {loc}"},
      nouns = {"masa", "masa pulmonar", "masas"},
    },
    hyperinflation = {
      sev = {MILD_F, MODERATE_F, SEVERE_F},
      np = {
        "hiperinsuflación[ {sev}|]", "hiperinsuflación[ {sev}|] de ambos pulmones", "hiperinsuflación pulmonar[ {sev}|]",
        "atrapamiento aéreo[ {sev_m}|]", "enfisema[ {sev_m}|]", "aplanamiento de las cúpulas por hiperinsuflación {sev}",
      },
      sentences = {
        "Los pulmones están hiperinsuflados.", "Pulmones hiperinsuflados con diafragmas aplanados.",
        "Diafragmas bajos y planos, compatibles con enfisema {sev_m}.", "*Los pulmones están hiperinsuflados, con diafragmas bajos.",
      },
      rich = {"hiperinsuflación {sev} de ambos pulmones", "hiperinsuflación {sev}"},
      nouns = {"hiperinsuflación", "atrapamiento aéreo", "enfisema"},
    },
    pacemaker = {
      np = {
        "marcapasos {side_m}", "marcapasos en el lado {side_m}", "marcapasos pectoral {side_m}", "marcapasos en la pared torácica {side_f}",
        "dispositivo cardíaco {side_m} con su electrodo", "*marcapasos cardíaco en el lado {side_m}",
      },
      sentences = {
        "Generador de marcapasos en la pared torácica {side_f}.", "Marcapasos {side_m} con electrodo en el ventrículo derecho.",
        "El electrodo de un marcapasos {side_m} se proyecta sobre el corazón.",
      },
      plain = {"marcapasos[ cardíaco|]"},
      rich = {"marcapasos {side_m}", "marcapasos en la pared torácica {side_f}", "marcapasos pectoral {side_m}"},
      nouns = {"marcapasos", "marcapasos cardíaco", "dispositivo cardíaco"},
    },
    foreign_body = {
      np = {
        "cuerpo extraño {place}", "cuerpo extraño metálico {place}", "{object} {place}", "objeto metálico {place}", "objeto radiopaco {place}",
        "cuerpo extraño ({object}) {place}", "*cuerpo extraño radiopaco {place}",
      },
      sentences = {"Imagen de densidad metálica (cuerpo extraño) {place}.", "Se proyecta {object} {place}."},
      plain = {"cuerpo extraño[ metálico|]"},
      rich = {"cuerpo extraño metálico {place}", "{object} {place}"},
      nouns = {"cuerpo extraño", "cuerpo extraño metálico", "objeto radiopaco"},
      object = {
        coin = {"moneda", "objeto en forma de disco", "moneda deglutida"}, ring = {"anillo", "objeto en forma de anillo", "anillo metálico"},
        pin = {"alfiler", "aguja", "objeto metálico lineal"}, pellets = {"grupo de perdigones", "conjunto de perdigones metálicos", "hilera de cuentas"},
      },
    },
    scoliosis = {
      sev = {MILD_F, MODERATE_F, SEVERE_F},
      np = {
        "escoliosis[ {sev}|]", "escoliosis dorsal[ {sev}|]", "escoliosis {bend}[ {sev}|]", "curvatura {bend} de la columna",
        "desviación[ {sev}|] de la columna dorsal", "*curvatura {bend} {sev} de la columna",
      },
      sentences = {"La columna dorsal presenta una curvatura {sev}.", "Escoliosis, {bend}.", "La columna muestra escoliosis {sev}."},
      rich = {"escoliosis {bend} {sev}", "escoliosis dorsal {sev}"},
      nouns = {"escoliosis", "escoliosis dorsal", "desviación de la columna"},
    },
    hemidiaphragm = {
      sev = {MILD_F, MODERATE_F, SEVERE_F},
      np = {
        "elevación[ {sev}|] del hemidiafragma {side_m}", "hemidiafragma {side_m} elevado", "hemidiafragma {side_m} sobreelevado",
        "elevación[ {sev}|] del diafragma {side_m}", "ascenso {sev_m} del hemidiafragma {side_m}", "*sobreelevación {sev} del hemidiafragma {side_m}",
      },
      sentences = {
        "El hemidiafragma {side_m} está elevado.", "La cúpula diafragmática {side_f} está elevada de forma {sev}.",
        "El hemidiafragma {side_m} está más alto de lo habitual.",
      },
      plain = {"elevación del hemidiafragma"},
      rich = {"elevación {sev} del hemidiafragma {side_m}", "elevación {sev} del diafragma {side_m}"},
      nouns = {"elevación del hemidiafragma", "elevación diafragmática", "elevación del diafragma"},
    },
  },

  -- Severities in the other gender than the finding's main noun, and as a grade.
  sev_m = {MILD_M, MODERATE_M, SEVERE_M},
  sev_f = {MILD_F, MODERATE_F, SEVERE_F},
  grade = {"leve", "moderado", "severo"},

  normal = {
    all = {
      "Sin alteraciones cardiopulmonares agudas.", "Radiografía de tórax normal.", "Tórax normal.", "No se observan alteraciones.",
      "Estudio sin hallazgos.", "*Radiografía de tórax sin alteraciones.",
    },
    heart = {
      "Tamaño cardíaco normal.", "Corazón de tamaño normal.", "La silueta cardíaca es normal.", "Silueta cardíaca dentro de límites normales.",
      "El corazón no está aumentado de tamaño.", "*Tamaño cardíaco dentro de límites normales.",
    },
    mediastinum = {"Mediastino normal.", "El mediastino es normal.", "Contornos mediastínicos sin alteraciones."},
    lungs = {
      "Pulmones sin alteraciones.", "Los pulmones están limpios.", "Campos pulmonares limpios.", "Ambos pulmones son normales.",
      "*Los campos pulmonares son normales.",
    },
    angles = {"Senos costofrénicos libres.", "Los senos costofrénicos están libres.", "Espacios pleurales libres."},
    diaphragm = {"Diafragma normal.", "Ambos hemidiafragmas en posición normal.", "Altura normal de ambas cúpulas."},
    volume = {"Volumen pulmonar normal.", "Los pulmones están bien expandidos.", "Buena inspiración."},
    vessels = {"Vasos pulmonares normales.", "Vascularización normal.", "Sin redistribución vascular."},
    bones = {"Huesos normales.", "Estructuras óseas íntegras.", "La columna es recta.", "Sin lesiones óseas."},
  },
  neutral = {
    "Radiografía de tórax frontal.", "Proyección posteroanterior.", "Radiografía portátil.", "Sin estudios previos para comparar.",
    "Proyección única de tórax.", "La placa está ligeramente rotada.", "Se recomienda correlación clínica.", "Se sugiere control evolutivo.",
    "*Proyección frontal única.",
  },

  prompt = {
    positive = {"Placa con {np}.", "{np} en la placa."},
    negative = {"Placa sin {np}.", "Sin {np} en la placa.", "No hay signos de {np}."},
    pair = {"Placa con {np} y {np2}.", "{np} y {np2} en la placa."},
  },
}
